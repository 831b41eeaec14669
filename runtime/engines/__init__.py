"""Engines make tokens: one folder or file each, all behind the contract in base."""
