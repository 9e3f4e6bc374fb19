"""Stage prep: dataset and model in, tokenised shards and a data card out. Needs no torch."""
