"""The decorator that checks shapes and types: beartype, to which an int is a float as it is to everybody else."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
