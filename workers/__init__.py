"""The Celery side: the application, the relay, and one thin task per stage."""
