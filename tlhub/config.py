"""A run's configuration: every field, its default and what it is for, in one place.

Fields whose default is `None` are filled in for the run at hand (`tlhub/training/defaults.py`), from the task, the
strategy and the size of the data. A field's metadata names the strategies, the tasks, the kinds of target and the
values of other fields with which it has an effect; setting it in any other run is an error.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

HEAD_STRATEGIES = ("scratch", "head", "last_k", "gradual_unfreezing", "full", "lora")
"""Strategies that put a fresh head on the checkpoint, of the form that `model` asks for."""
GRADIENT_STRATEGIES = (*HEAD_STRATEGIES, "lp_ft")
BACKBONE_STRATEGIES = tuple(name for name in GRADIENT_STRATEGIES if name != "head")
FEATURE_STRATEGIES = ("linear_probe", "head", "lp_ft")
FITTING_STRATEGIES = (*GRADIENT_STRATEGIES, "linear_probe")
IMAGE_TASKS = ("image-classification", "image-regression")
TEXT_TASKS = ("text-classification",)
AUDIO_TASKS = ("audio-classification", "wake-word")
GENERATION_TASKS = ("text-generation",)
"""Tasks that keep the checkpoint's own last layer, so that no new head is put on."""
HEADED_TASKS = (*IMAGE_TASKS, *TEXT_TASKS, *AUDIO_TASKS)
LABELLED_TASKS = ("image-classification", "text-classification", "audio-classification")
"""Tasks whose labels may be one class or several."""
CLASSIFICATION_TASKS = (*LABELLED_TASKS, "wake-word")
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
NEXT_TOKEN = "next_token"
POOLS = ("auto", "native", "first", "mean", "flatten")
"""What `model.pool` may be."""
LABEL_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
"""Kinds of target that are given beside the input, by the names that transformers' configurations have for them."""
PROBLEM_TYPES = (*LABEL_TYPES, NEXT_TOKEN)
"""Kinds of target."""
AUTO_METHODS = ("lora", "dora", "rslora", "pissa", "loha", "lokr", "ia3", "vera", "oft", "boft", "adalora", "randlora")
METHODS_WITHOUT = {"ia3": ("rank", "alpha", "adapter_dropout"), "vera": ("alpha",), "oft": ("alpha",),
                   "boft": ("alpha",)}
"""The adapter fields that have no effect with a PEFT method."""


def option(default: Any, words: str, *, strategies: tuple[str, ...] = (), tasks: tuple[str, ...] = (),
           problems: tuple[str, ...] = (), choices: tuple[str, ...] = (),
           requires: tuple[str, tuple[Any, ...]] = ("", ()), unless: tuple[str, tuple[Any, ...]] = ("", ())) -> Any:
    """Return a dataclass field with its documentation.

    Args:
        default: The default; a list is copied for each instance.
        words: What the field is for.
        strategies: The strategies in which it has an effect (none named: all).
        tasks: The tasks in which it has an effect (none named: all).
        problems: The kinds of target with which it has an effect (none named: all).
        choices: The accepted values, where they are few.
        requires: Another field, and the values of it with which this one has an effect.
        unless: Another field, and the values of it with which this one has none.
    """
    metadata = {"help": words, "strategies": strategies, "tasks": tasks, "problems": problems, "choices": choices,
                "requires": requires, "unless": unless}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """Which checkpoint, and what is put on top of it."""

    name: str = option("", "Hub id, folder, the folder of a tlhub run, or a checkpoint of tlhub's own (builtin/vision)")
    revision: str | None = option(None, "branch, tag or commit of a Hub checkpoint")
    head: str = option("linear", "'linear', or the widths of an MLP such as '1024,512'", strategies=HEAD_STRATEGIES,
                       tasks=HEADED_TASKS)
    pool: str = option("auto", "what the head reads: the input of the checkpoint's own last layer (native), or its "
                               "feature map or tokens, averaged (mean), the first token (first), or all (flatten); "
                               "'auto' is native, for strategy head the probe's choice", strategies=HEAD_STRATEGIES,
                       tasks=HEADED_TASKS, choices=POOLS)
    activation: str = option("relu", "between the layers of an MLP head", strategies=HEAD_STRATEGIES,
                             tasks=HEADED_TASKS, choices=("relu", "gelu", "silu", "tanh"),
                             unless=("model.head", ("linear",)))
    head_dropout: float = option(0.0, "dropout after each hidden layer of an MLP head", strategies=HEAD_STRATEGIES,
                                 tasks=HEADED_TASKS, unless=("model.head", ("linear",)))
    sigmoid: bool = option(False, "tell two classes apart by one output with a sigmoid", strategies=HEAD_STRATEGIES,
                           tasks=CLASSIFICATION_TASKS, problems=(SINGLE_LABEL,))
    dropout: float | None = option(None, "overrides every dropout probability of the checkpoint; 0 switches it off",
                                   strategies=BACKBONE_STRATEGIES)
    save_base: bool = option(True, "keep the frozen weights beside what was trained (a link where possible); false "
                                   "saves the new layers only", strategies=("lora", "linear_probe", "head"))


@dataclass(frozen=True)
class DataConfig:
    """Which data, which columns, and how they are divided."""

    source: str = option("", "folder, file or Hub id of the data set, or one of tlhub's own (builtin/digits)")
    text_column: str | None = option(None, "column that holds the text", tasks=(*TEXT_TASKS, *GENERATION_TASKS))
    text_pair_column: str | None = option(None, "column that holds the second text of a pair", tasks=TEXT_TASKS)
    prompt_column: str | None = option(None, "column that holds what a completion answers", tasks=GENERATION_TASKS)
    completion_column: str | None = option(None, "column that holds the completion", tasks=GENERATION_TASKS)
    messages_column: str | None = option(None, "column that holds conversations, lists of messages with a role and "
                                               "content", tasks=GENERATION_TASKS)
    label_column: str | None = option(None, "column that holds the label", tasks=HEADED_TASKS)
    target_columns: list[str] = option([], "columns of several targets of a regression, or one column of 0 and 1 for "
                                           "each of several labels", problems=(MULTI_LABEL, REGRESSION),
                                       tasks=HEADED_TASKS)
    problem_type: str | None = option(None, "kind of target; default: from the label column", choices=LABEL_TYPES,
                                      tasks=LABELLED_TASKS)
    label_separator: str | None = option(None, "what stands between the labels of one example; default: the one of "
                                               "';', '|' and ',' that occurs", problems=(MULTI_LABEL,),
                                         tasks=CLASSIFICATION_TASKS)
    file_column: str | None = option(None, "column that holds the file name, the image or the sound",
                                     tasks=(*IMAGE_TASKS, *AUDIO_TASKS))
    group_column: str | None = option(None, "column whose values are never divided between splits (speaker, patient)")
    split_column: str | None = option(None, "column that names the split of a row")
    metadata: str | None = option(None, "table beside the files that describes them",
                                  tasks=(*IMAGE_TASKS, *AUDIO_TASKS))
    validation_fraction: float = option(0.1, "share of the training data set aside where there is no validation split")
    test_fraction: float = option(0.1, "share set aside for the test where the data has a single split")
    max_train_examples: int | None = option(None, "use at most this many training examples, drawn by class")
    max_evaluation_examples: int | None = option(None, "score at most this many examples of validation, and of the "
                                                       "test, drawn by class; default: all")
    max_bad_fraction: float = option(0.01, "share of undecodable examples up to which the run goes on")
    max_length: int | None = option(None, "tokens kept of a text", tasks=TEXT_TASKS)
    max_seconds: float | None = option(None, "seconds kept of a clip, from its start; default: what the checkpoint "
                                             "reads, at most 30", tasks=AUDIO_TASKS)
    one_length: bool | None = option(None, "continue every clip by silence to max_seconds; default: where the model's "
                                           "answer depends on how far a clip is padded", tasks=AUDIO_TASKS)
    block_size: int | None = option(None, "tokens of one training example, into which long texts are cut; default: "
                                          "what the checkpoint reads, at most 1024", tasks=GENERATION_TASKS)
    packing: bool = option(True, "lay several short examples out in one row, without attention between them; changes "
                                 "speed and memory, not what is learned", tasks=GENERATION_TASKS)
    flip: bool | None = option(None, "mirror training images at random; default: where the backbone is trained",
                               tasks=IMAGE_TASKS, strategies=GRADIENT_STRATEGIES)
    crop: str | None = option(None, "crop training images at random: a part enlarged (resized), or shifted by up to an "
                                    "eighth (padded); default: resized where the backbone is trained, for classes",
                              tasks=IMAGE_TASKS, strategies=GRADIENT_STRATEGIES, choices=("none", "resized", "padded"))
    randaugment: int = option(0, "operations of RandAugment on each training image", tasks=IMAGE_TASKS,
                              strategies=GRADIENT_STRATEGIES)
    randaugment_magnitude: float = option(9.0, "strength of RandAugment, 0 to 30", tasks=IMAGE_TASKS,
                                          strategies=GRADIENT_STRATEGIES, unless=("data.randaugment", (0,)))
    color: float = option(0.0, "random change of brightness, contrast and saturation, by up to this factor",
                          tasks=IMAGE_TASKS, strategies=GRADIENT_STRATEGIES)
    erasing: float = option(0.0, "probability that a rectangle of a training image is erased", tasks=IMAGE_TASKS,
                            strategies=GRADIENT_STRATEGIES)
    mixup: float = option(0.0, "blend pairs of training images; alpha of the Beta distribution of their shares",
                          tasks=IMAGE_TASKS, strategies=GRADIENT_STRATEGIES, problems=(SINGLE_LABEL, MULTI_LABEL))
    cutmix: float = option(0.0, "paste a part of one training image into another; alpha of the Beta distribution of "
                                "their shares", tasks=IMAGE_TASKS, strategies=GRADIENT_STRATEGIES,
                           problems=(SINGLE_LABEL, MULTI_LABEL))
    shift: float | None = option(None, "move training clips at random by up to this many seconds, silence coming in "
                                       "behind them; default: a tenth where the backbone is trained",
                                 tasks=AUDIO_TASKS, strategies=GRADIENT_STRATEGIES)
    delay: float = option(0.0, "put silence of random length, up to this many seconds, before training clips, as far "
                               "as max_seconds leaves room", tasks=AUDIO_TASKS, strategies=GRADIENT_STRATEGIES)
    gain: float = option(0.0, "make training clips louder or softer at random by up to this many dB", tasks=AUDIO_TASKS,
                         strategies=GRADIENT_STRATEGIES)
    noise: float | None = option(None, "mix noise into training clips, at a random signal-to-noise ratio from this "
                                       "many dB up to 30 dB more; default: none", tasks=AUDIO_TASKS,
                                 strategies=GRADIENT_STRATEGIES)
    time_masks: int = option(0, "stretches of time that are blanked in each training clip (SpecAugment)",
                             tasks=AUDIO_TASKS, strategies=GRADIENT_STRATEGIES)
    time_mask_share: float = option(0.1, "longest blanked stretch, as a share of the clip", tasks=AUDIO_TASKS,
                                    strategies=GRADIENT_STRATEGIES, unless=("data.time_masks", (0,)))
    frequency_masks: int = option(0, "bands of frequency that are blanked in each training clip (SpecAugment)",
                                  tasks=AUDIO_TASKS, strategies=GRADIENT_STRATEGIES)
    frequency_mask_share: float = option(0.2, "widest blanked band, as a share of the mel bands or of the spectrum",
                                         tasks=AUDIO_TASKS, strategies=GRADIENT_STRATEGIES,
                                         unless=("data.frequency_masks", (0,)))
    cache_dir: str | None = option(None, "folder of the prepared data and features; default ~/.cache/tlhub")
    cache_limit_gib: float = option(4.0, "largest prepared data set or feature table kept on disk, in GiB")


@dataclass(frozen=True)
class StrategyConfig:
    """What is trained."""

    name: str = option("full", "how to transfer")
    features: str = option("auto", "what a probe reads of the frozen checkpoint", strategies=FEATURE_STRATEGIES,
                           choices=("auto", "native", "first", "mean", "layer_mean"))
    method: str = option("lora", "the PEFT method", strategies=("lora",), choices=AUTO_METHODS)
    rank: int = option(16, "rank of the adapters", strategies=("lora",))
    alpha: float | None = option(None, "scale of the adapters; default: the rank", strategies=("lora",))
    adapter_dropout: float = option(0.0, "dropout before the adapters", strategies=("lora",))
    targets: list[str] = option([], "layers that get adapters (name endings); default: chosen for the architecture",
                                strategies=("lora",))
    layer_decay: float | None = option(None, "learning-rate factor from each block to the one below it",
                                       strategies=("full", "lp_ft", "gradual_unfreezing"))
    k: int = option(2, "how many of the last blocks are trained, with the head", strategies=("last_k",))
    freeze_stem: bool = option(False, "leave what stands before the first block as it is, as is usual for the "
                                      "convolutions of wav2vec2", strategies=("full", "lp_ft", "gradual_unfreezing"))
    freeze_batch_norm: bool = option(False, "leave the statistics of BatchNorm as the checkpoint has them, so that no "
                                            "example of a batch sees the others", strategies=BACKBONE_STRATEGIES)
    unfreeze_fraction: float = option(0.5, "share of the steps by whose end every block has been unfrozen",
                                      strategies=("gradual_unfreezing",))


@dataclass(frozen=True)
class TrainConfig:
    """How training goes."""

    epochs: float | None = option(None, "passes over the training data", strategies=GRADIENT_STRATEGIES)
    max_steps: int | None = option(None, "stop after at most this many optimizer steps", strategies=GRADIENT_STRATEGIES)
    batch_size: int | None = option(None, "examples in one optimizer step, over all processes",
                                    strategies=GRADIENT_STRATEGIES)
    micro_batch_size: int | None = option(None, "examples in one forward pass; changes memory, not the result")
    learning_rate: float | None = option(None, "peak learning rate", strategies=GRADIENT_STRATEGIES)
    weight_decay: float | None = option(None, "decoupled weight decay of matrices; biases and norms have none",
                                        strategies=GRADIENT_STRATEGIES)
    optimizer: str = option("adamw", "the optimizer", strategies=GRADIENT_STRATEGIES,
                            choices=("adamw", "adam", "sgd", "rmsprop"))
    momentum: float = option(0.9, "momentum of SGD", strategies=GRADIENT_STRATEGIES,
                             requires=("train.optimizer", ("sgd",)))
    schedule: str = option("cosine", "learning rate after the warm-up", strategies=GRADIENT_STRATEGIES,
                           choices=("cosine", "linear", "constant"))
    warmup_fraction: float = option(0.1, "share of the steps in which the learning rate rises",
                                    strategies=GRADIENT_STRATEGIES)
    clip_norm: float = option(1.0, "largest norm of the gradient; 0 for no limit", strategies=GRADIENT_STRATEGIES)
    average: float = option(0.0, "decay of a moving average of the weights, such as 0.999, which is then "
                                 "scored and saved; 0 for none", strategies=GRADIENT_STRATEGIES)
    loss: str | None = option(None, "cross_entropy or focal for classes (of each label where there are several), mse "
                                    "or huber for a regression; default: the first", strategies=GRADIENT_STRATEGIES,
                              choices=("cross_entropy", "focal", "mse", "huber"))
    focal_gamma: float = option(2.0, "how much the focal loss turns to hard examples", strategies=GRADIENT_STRATEGIES,
                                requires=("train.loss", ("focal",)))
    huber_delta: float = option(1.0, "error, in standard deviations of the target, from which Huber's loss is linear",
                                strategies=GRADIENT_STRATEGIES, requires=("train.loss", ("huber",)))
    label_smoothing: float = option(0.0, "share of the target spread over all classes", strategies=FITTING_STRATEGIES,
                                    tasks=CLASSIFICATION_TASKS, problems=(SINGLE_LABEL,))
    class_weights: str | None = option(None, "'balanced' weighs each class by the inverse of its frequency; default: "
                                             "balanced for wake words, otherwise none",
                                       strategies=FITTING_STRATEGIES, tasks=CLASSIFICATION_TASKS,
                                       problems=(SINGLE_LABEL, MULTI_LABEL), choices=("none", "balanced"))
    sampling: str = option("natural", "how often each class is drawn: as it comes (natural), by the square root of its "
                                      "frequency (sqrt), or all alike (balanced)", strategies=GRADIENT_STRATEGIES,
                           tasks=CLASSIFICATION_TASKS, problems=(SINGLE_LABEL, MULTI_LABEL),
                           choices=("natural", "sqrt", "balanced"))
    logit_adjustment: float = option(0.0, "adds this many times the log frequency of each class to the logits in "
                                          "training, so that rare classes are not neglected; 1 balances",
                                     strategies=FITTING_STRATEGIES, tasks=CLASSIFICATION_TASKS,
                                     problems=(SINGLE_LABEL,))
    evaluate_every: int | None = option(None, "optimizer steps between validations; default: once an epoch",
                                        strategies=GRADIENT_STRATEGIES)
    patience: int | None = option(None, "stop after this many validations without improvement",
                                  strategies=GRADIENT_STRATEGIES)
    checkpoint_every: int | None = option(None, "optimizer steps between checkpoints; default: a minute or more",
                                          strategies=GRADIENT_STRATEGIES)
    keep_last: int = option(2, "checkpoints kept; where the newest turns out damaged, the one before it is used",
                            strategies=GRADIENT_STRATEGIES)
    max_bad_steps: int = option(5, "stop after this many non-finite steps in a row", strategies=GRADIENT_STRATEGIES)
    precision: str = option("auto", "autocast type; 'auto' is bf16 where the device computes in it, else fp32",
                            choices=("auto", "fp32", "bf16", "fp16"))
    gradient_checkpointing: bool = option(False, "compute the inside of each block again for its gradient instead of "
                                                 "keeping it: less memory, more time", strategies=BACKBONE_STRATEGIES)
    compile: bool = option(False, "compile the model with torch.compile", strategies=GRADIENT_STRATEGIES)


@dataclass(frozen=True)
class EvaluateConfig:
    """How the result is scored."""

    metrics: list[str] = option([], "metrics by name; default: those of the task")
    best: str | None = option(None, "metric that chooses the best epoch on validation; default: that of the task")
    knn: bool = option(False, "score nearest neighbours on frozen features even where no features are cached",
                       tasks=HEADED_TASKS)
    resamples: int = option(1000, "bootstrap resamples behind the 95% intervals")
    calibrate: bool = option(False, "divide the logits of the saved model by the temperature that fits validation best",
                             tasks=CLASSIFICATION_TASKS, problems=(SINGLE_LABEL,))


@dataclass(frozen=True)
class LogConfig:
    """What is written while training."""

    trackers: list[str] = option([], "experiment trackers of accelerate: tensorboard, wandb, trackio, ...")
    every: int = option(10, "optimizer steps between lines of history.jsonl", strategies=GRADIENT_STRATEGIES)


@dataclass(frozen=True)
class LaunchConfig:
    """Which processes do the work."""

    num_processes: int = option(1, "processes of the run")
    workers: int | None = option(None, "threads that decode files, 0 for none; default: the number of cores")


@dataclass(frozen=True)
class RunConfig:
    """One run."""

    task: str = option("", "what is predicted")
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    task_options: dict[str, Any] = option({}, "options of the task itself")
    out: str | None = option(None, "folder of the run; default: runs/<task>-<n>")
    seed: int = option(0, "the source of every random draw")


SECTIONS: dict[str, type] = {
    "model": ModelConfig, "data": DataConfig, "strategy": StrategyConfig, "train": TrainConfig,
    "evaluate": EvaluateConfig, "log": LogConfig, "launch": LaunchConfig,
}

SHORT_OPTIONS: dict[str, str] = {
    "model": "model.name", "data": "data.source", "strategy": "strategy.name",
    "epochs": "train.epochs", "max_steps": "train.max_steps", "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate", "max_train_examples": "data.max_train_examples",
    "num_processes": "launch.num_processes", "keyword": "task_options.keyword",
}

@dataclass(frozen=True)
class WakeWordOptions:
    """Options of the task wake-word."""

    keyword: list[str] = option([], "class or classes to be spotted, against every other class")
    false_accept_rate: float = option(0.01, "share of other clips that may be taken for a keyword: the threshold is "
                                            "the lowest that keeps to it on validation")


@dataclass(frozen=True)
class TextGenerationOptions:
    """Options of the task text-generation."""

    prompts: list[str] = option([], "what the report's samples go on from; default: beginnings of validation texts")
    sample_tokens: int = option(50, "new tokens of each of the report's samples")


TASK_OPTIONS: dict[str, type] = {"wake-word": WakeWordOptions, "text-generation": TextGenerationOptions}
"""The options that only one task has (`task_options.*`), by task."""

@dataclass(frozen=True)
class SamplingConfig:
    """How a finished run of a text-generation task goes on with a prompt."""

    max_new_tokens: int = option(50, "at most this many new tokens; it may end earlier by itself")
    num_return_sequences: int = option(1, "texts for each prompt")
    do_sample: bool | None = option(None, "draw tokens by their probability; default: where temperature, top_k or "
                                          "top_p is given, or several texts are asked for without beams")
    temperature: float | None = option(None, "divides the logits; default: the checkpoint's, otherwise 1")
    top_k: int | None = option(None, "draw from this many tokens, 0 for all; default: the checkpoint's, otherwise 50")
    top_p: float | None = option(None, "draw from the likeliest tokens of this share; default: the checkpoint's or 1")
    repetition_penalty: float | None = option(None, "makes tokens that have occurred less likely, above 1")
    num_beams: int = option(1, "beginnings that are followed up at a time (beam search)")
    seed: int | None = option(None, "what tokens are drawn from; default: the run's")


IDENTITY_EXCLUDES = ("out", "launch", "log", "train.micro_batch_size", "train.gradient_checkpointing",
                     "data.cache_dir", "data.cache_limit_gib", "train.checkpoint_every", "train.keep_last")
"""Fields that do not belong to what a configuration is: they change neither the data seen nor the loss."""


def replace(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """Return `config` with fields set by dotted name, such as `{"train.epochs": 3}`."""
    top: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        if key and section in SECTIONS:
            top[section] = dataclasses.replace(top.get(section, getattr(config, section)), **{key: value})
        else:
            top[section] = value
    return dataclasses.replace(config, **top)


def as_dict(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested plain values."""
    return dataclasses.asdict(config)


def problem_type(config: RunConfig) -> str | None:
    """Return the kind of target as far as the configuration tells it; None where the data decide."""
    if config.task in GENERATION_TASKS:
        return NEXT_TOKEN
    if config.task == "wake-word":
        return SINGLE_LABEL
    return REGRESSION if config.task.endswith("-regression") else config.data.problem_type


def task_options(config: RunConfig) -> Any:
    """Return the options of the run's task as an instance of its class in `TASK_OPTIONS`."""
    return TASK_OPTIONS[config.task](**config.task_options)


def value_of(config: RunConfig, name: str) -> Any:
    """Return the value of a field by its dotted name."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)
