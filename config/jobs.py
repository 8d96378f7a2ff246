"""Doorbells of the installation itself."""

from celery import shared_task

from config import retention, status


@shared_task(soft_time_limit=180, time_limit=200)
def examine_slowly() -> None:
    status.look_slowly()


@shared_task
def clean_up() -> None:
    retention.clean_up()
