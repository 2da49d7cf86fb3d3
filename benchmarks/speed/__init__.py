"""How long verdicts and kernels take, and how much memory."""
