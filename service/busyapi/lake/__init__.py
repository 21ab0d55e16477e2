"""`busyapi lake`: an Apache Iceberg table that follows the archive's finished segments."""
