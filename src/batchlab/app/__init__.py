"""Run, then render: each command as a function, one module each."""
