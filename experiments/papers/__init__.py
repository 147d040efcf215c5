"""The papers' tables and figures about trained encoders: one short file each, run from the checkout.

python -m experiments.papers.lee_table1 --scale=minutes --out=runs/papers
"""
