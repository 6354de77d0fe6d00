"""What the ``bench_*`` commands share: rounds, tables, systems to compare, a mail sink."""
