"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A test that is slow once because the machine was busy has found nothing.
settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")
