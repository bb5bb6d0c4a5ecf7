"""The quickstart in cells: submit it, follow it, look at its curves. Nothing here needs the command line."""

# %% A recipe that comes along, cut to a short training
import tunesmith

tunesmith.copy_recipe("quickstart")
recipe = tunesmith.load("quickstart.yaml", sets={"train.steps": 30})

# %% What would be sent
plan = tunesmith.plan(recipe, to="litgpt", on="local")
print(plan.trainer, plan.digest[:12], *plan.files)

# %% Run it. The first time, an environment is made, which takes minutes
job = tunesmith.submit(plan)
for status in job.follow():
    print(f"{status.state:9} {status.phase_step:11} step {status.step or '-'} of {status.steps}")
job.wait(check=True)

# %% Its metrics as plain lists, and its curve
metrics = job.metrics("loss", "lr", "tokens_per_second")
print({name: values[-1] for name, values in metrics.items()})
print(job.plot("loss", width=90, height=16))

# %% The trained model, in Hugging Face layout
folder = job.pull("results")
print(*sorted(str(path.relative_to(folder)) for path in (folder / "work" / "checkpoint").iterdir()))
