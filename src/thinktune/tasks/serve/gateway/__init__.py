"""The server's only port: what clients may ask, in the form of OpenAI's API, and the chat page.

`http` takes connections and knows the paths; `chat_api` is the form of requests; `prompts` renders
them as training did; `answering` takes the engine's text apart; `responses` is the form of answers.
"""
