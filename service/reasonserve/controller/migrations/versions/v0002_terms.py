"""Terms, which fence an earlier controller; Alembic's version replaces our own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds `meta.term` and an index of keys by tenant, drops `meta.schema_version`."""
    with op.batch_alter_table("meta") as meta:
        meta.add_column(sa.Column("term", sa.BigInteger, nullable=False, server_default="0"))
        meta.drop_column("schema_version")
    op.create_index("tenant_keys_by_tenant", "tenant_keys", ["tenant_id"])
