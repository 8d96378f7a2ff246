"""Pictures from outside are decoded in processes of their own, which may die.

`pixels.py` holds the rules and knows neither Django nor the store; `process.py` is what runs there,
under limits of memory and time, with nothing of this process's environment; `pool.py` keeps a few
of them and turns whatever happens to them into a sentence.
"""
