"""The field technician's way in: commands over a serial line or the local control socket."""
