"""Questions with one right answer, made from fixed seeds, that tell methods of compression apart.

``chaser``, ``retrieval`` and ``multikey`` are written in the words of the small model (``words``); ``gsm8k`` and
``gsm_symbolic`` are in English.
"""
