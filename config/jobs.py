"""Doorbells of the installation itself."""

from celery import shared_task

from config import status


@shared_task(queue="default", soft_time_limit=180, time_limit=200)
def examine_slowly() -> None:
    status.look_slowly()
