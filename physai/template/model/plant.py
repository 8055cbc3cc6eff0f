"""__NAME__: what MJCF does not say: units, design variables, disturbances, closed-form checks.

All of it is optional, and what follows are examples to be uncommented. As the file is, the plant is
plant.xml alone.

Control period: __PERIOD__ s. `<custom><numeric name="control_period" data="..."/></custom>` in
plant.xml sets another, a multiple of the time step. An actuator whose name starts with
`disturbance/` is driven by the scenario, the others by the controller.
"""

from __future__ import annotations

# Units of the actuators, as far as physai could tell ("1": no unit).
# __UNITS__

# Design variables: name, unit, low, high, nominal. `apply` writes them into the model before it is
# compiled, and everything that follows from them.
# __DESIGN__

# Disturbances: actuators `disturbance/NAME` as random processes, standard deviation in the
# actuator's unit, correlation time in s.
# DISTURBANCES = {"NAME": {"std": 0.1, "correlation_time": 0.5}}

# Sensors that are recorded and predicted beside the state; without this, all of the model.
# __SENSORS__

# Closed-form checks, printed by `physai check`: quantity, unit, closed form, simulated, tolerance.
# from physai.plant import Check, Plant
#
# def checks(plant: Plant) -> list[Check]:
#     return [Check("mass", "kg", __MASS__, float(plant.model.body_mass.sum()), 1e-6)]
