"""An action whose input is of another type than the workflow takes, and a form that is none."""

from datetime import timedelta

from aion_es.schedules import Cron, Interval, Schedule, Start
from tests.architecture.typing_channels import checkout, heartbeat

Start(checkout, "order-42")  # error
Start(checkout)  # error
Start(heartbeat, 1)  # error
Schedule(id="a", spec="0 3 * * *", action=Start(heartbeat))  # error
Cron(5)  # error
Interval(every=60)  # error
action = Start(heartbeat)
Schedule(id="a", spec=Interval(timedelta(hours=1)), action=action, overlap="skip")  # error
