"""The command line, and everything on one machine: Ray and the services, started and kept alive."""
