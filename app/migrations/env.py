"""Alembic's entry: runs the migrations on the connection it is given, or on the settings'."""

from alembic import context

from app import db, schema
from app.models import Base

given = context.config.attributes.get("connection")

if given is not None:
    context.configure(connection=given, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
else:
    with schema.migrating(db.engine()) as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
