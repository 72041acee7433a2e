"""Decoding: a model, a way to read its cache, and what each request took."""
