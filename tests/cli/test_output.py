"""Commands that are printed to be typed: on the same store, and without its password."""

from __future__ import annotations

import pytest

from interlock.cli.output import command


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("sqlite:///a b/i.db", "'sqlite:///a b/i.db'"),
        ("postgresql://me:s3cret@db:5432/il?schema=x", "'postgresql://me@db:5432/il?schema=x'"),
        ("postgresql://me:s3%40cret@db/il", "postgresql://me@db/il"),
        ("postgresql://db/il?user=me&password=s3cret&schema=x", "'postgresql://db/il?user=me&schema=x'"),
        ("postgresql://me@db:5432/il", "postgresql://me@db:5432/il"),
    ],
)
def test_the_store_is_named_without_its_password(store, shown):
    assert command(store, "settle", "k1") == f"interlock settle k1 --store {shown}"


def test_no_store_is_named_where_none_was():
    assert command(None, "doubts") == "interlock doubts"
