"""Wake words: how clips are told to be keywords, and how well."""
