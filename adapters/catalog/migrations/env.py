"""What alembic runs: the migrations, on the connection that `upgrade` was given."""

from alembic import context

from adapters.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite can't alter tables in place
)
context.run_migrations()
