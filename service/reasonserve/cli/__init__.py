"""The command line: ``reasonserve VERB``. Imports no torch, ray or sglang."""
