"""The Celery side: the application, the relay, one thin task a stage."""
