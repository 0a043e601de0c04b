"""``python -m reasonserve``."""

from reasonserve.cli.main import main

if __name__ == "__main__":
    main()
