"""Generation: prompts and sampling in, answers out as they finish.

`protocol` says what an engine is; `answers` keeps in the store what is finished. Evaluation uses
engines through the protocol alone.
"""
