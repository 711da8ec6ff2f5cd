"""Carriers: how bits ride on pixels, and how they are taken off again exactly."""
