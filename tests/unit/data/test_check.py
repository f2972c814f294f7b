from __future__ import annotations

from tests.data_files import csv_rows, write
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tlhub.data.check import check_report

TEXT = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)


def test_report_of_good_and_bad_data(tmp_path, config):
    path = write(tmp_path / "a.csv", csv_rows(100))
    facts, problems = check_report(config(path), "text", seed=0)
    assert not problems
    assert dict(facts)["splits"] == "train 80, validation 10, test 10"
    assert dict(facts)["classes"] == "2 (training examples: neg 40, pos 40)"
    facts, problems = check_report(config(path, label_column="x"), "text", seed=0)
    assert dict(facts)["columns"] == "text, label"
    assert len(problems) == 1


def test_facts_of_values_labels_and_pairs(tmp_path, config):
    path = write(tmp_path / "a.csv", "text_a,text_b,y\n" + "".join(f"a b,c {n},{n / 2}\n" for n in range(100)))
    facts, problems = check_report(config(path), "text", problems=TEXT, seed=0)
    assert not problems
    assert dict(facts)["problem type"] == REGRESSION
    assert dict(facts)["y"].startswith("0 to 49.5, mean 24.")
    assert dict(facts)["words"] == "median 4, longest 4 (of both texts)"
    path = write(tmp_path / "b.csv", "text,label\n" + "".join(f"t{n},{'a;b' if n % 2 else ';'}\n" for n in range(100)))
    facts, problems = check_report(config(path, label_separator=";"), "text", problems=TEXT, seed=0)
    assert not problems
    assert dict(facts)["labels"] == "2 (training examples: a 40, b 40)"
    assert dict(facts)["labels of an example"] == "0 to 2, mean 1.00; without any: 40"


def test_every_problem_is_told(tmp_path, config):
    write(tmp_path / "d" / "train.csv", "text,u,v\n" + "".join(f"t{n},{n},{n}\n" for n in range(40)) + "x,tall,inf\n")
    write(tmp_path / "d" / "test.csv", "text,u,v\n,1,2\ny,,2\n")
    data = config(tmp_path / "d", target_columns=["u", "v"], problem_type=REGRESSION)
    _, problems = check_report(data, "text", problems=TEXT, seed=0)
    assert sorted(problem.split(" (")[0] for problem in problems) == [
        "1 of 43 examples cannot be used, the first is 'test.csv:2': no text; that is more than 1.0%: replace them, or "
        "raise --data.max_bad_fraction",
        "test.csv:3: column 'u' holds nothing, which is no finite number",
        "train.csv:42: column 'u' holds 'tall', which is no finite number",
        "train.csv:42: column 'v' holds 'inf', which is no finite number"]
    write(tmp_path / "e" / "train.csv", csv_rows(40))
    for split in ("validation", "test"):
        write(tmp_path / "e" / f"{split}.csv", f"text,label\n{split},{split}\nz{split},pos\n")
    _, problems = check_report(config(tmp_path / "e"), "text", seed=0)
    assert [problem.split(" in ")[0] for problem in problems] == ["class 'validation' is", "class 'test' is"]
