"""Keys that expire; those that are there go on without an end."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds `tenant_keys.expire_ns`, nanoseconds since the epoch; NULL: never."""
    op.add_column("tenant_keys", sa.Column("expire_ns", sa.BigInteger))
