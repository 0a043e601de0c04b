"""Queue limits of tenants; those that are there go on with the replicas' own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds `tenants.queue_requests` and `tenants.queue_wait_ns`; 0: the replica's configured limit."""
    op.add_column("tenants", sa.Column("queue_requests", sa.Integer, nullable=False, server_default="0"))
    op.add_column("tenants", sa.Column("queue_wait_ns", sa.BigInteger, nullable=False, server_default="0"))
