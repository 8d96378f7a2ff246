"""Doorbells of the installation itself."""

from celery import shared_task

from config import retention, status


@shared_task(queue="default", soft_time_limit=180, time_limit=200)
def examine_slowly() -> None:
    status.look_slowly()


@shared_task(queue="default")
def clean_up() -> None:
    retention.clean_up()
