from django.urls import URLPattern, URLResolver

app_name = "modeling"

urlpatterns: list[URLPattern | URLResolver] = []
