"""One folder per operator; ``kernels/README.md`` says what is in one."""
