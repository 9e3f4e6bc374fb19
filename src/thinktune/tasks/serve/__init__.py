"""Serving: a run's model behind one port, for people and for programs.

`gateway` is the port: it checks requests, renders prompts as training did, and takes answers apart.
`engine` is what computes, a process of its own on this machine: vLLM or transformers. `inputs`
reads the run's artifacts and checks all that an engine does not. `page` is the chat page.
"""
