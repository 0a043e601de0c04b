"""Exactness beside stock SGLang and beside Hugging Face transformers."""
