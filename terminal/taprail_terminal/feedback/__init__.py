"""Lights, sounds and display of a terminal.

`scene` decides what a view looks and sounds like and `screens` draws it, both pure; `feedback`
drives the parts, each on a thread of its own, through named drivers.
"""
