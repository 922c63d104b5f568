"""The column types of our tables where the two databases need different words for the same thing."""

from typing import Final

from sqlalchemy import Text as AnyText

Text: Final = AnyText().with_variant(AnyText(collation="C"), "postgresql")
"""Text in the order of its code points: what SQLite does by itself, and PostgreSQL when told."""
