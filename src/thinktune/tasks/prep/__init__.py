"""Stage prep: dataset and model in, tokenized shards and a data card out. Needs no torch."""
