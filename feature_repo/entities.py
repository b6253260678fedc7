"""Who features are about. Keys are strings, as the airlines write them."""

from feast import Entity, ValueType

origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING, description="Airport of departure")
dest = Entity(name="dest", join_keys=["dest"], value_type=ValueType.STRING, description="Airport of destination")
tail = Entity(name="tail", join_keys=["tailnum"], value_type=ValueType.STRING, description="Aircraft, by tail number")
