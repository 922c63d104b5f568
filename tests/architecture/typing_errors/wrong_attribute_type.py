"""A search attribute of a type that cannot be searched, or used as another's key."""

from aion_es import SearchAttribute

payload = SearchAttribute("payload", bytes)  # error
nested = SearchAttribute("nested", dict[str, str])  # error
total: SearchAttribute[int] = SearchAttribute("total", str)  # error
