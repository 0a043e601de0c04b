"""``python -m reasonserve.controller``."""

from reasonserve.controller.main import main

main()
