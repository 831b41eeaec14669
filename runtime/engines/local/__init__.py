"""What every engine that computes in this process shares: requests, a thread with a mailbox, sampling in C."""
