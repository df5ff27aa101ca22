"""The names of azureml.core and azureml.contrib.functions that the packaging tutorials use.

Every call runs andiron's command line and shows what it says; no rule, default or check lives here.
"""

import json
import os
import subprocess
import sys
import tempfile

BLOB_TRIGGER = "blob"
HTTP_TRIGGER = "http"
SERVICE_BUS_QUEUE_TRIGGER = "service_bus_queue"


class WebserviceException(Exception):
    """What andiron's command line refused, in its words."""


def _andiron(*arguments):
    done = subprocess.run([os.environ.get("ANDIRON", "andiron"), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise WebserviceException(done.stderr.strip())
    return done


def _json(*arguments):
    return json.loads(_andiron(*arguments, "--output", "json").stdout)


class Workspace:
    """A resource group and a registry."""

    def __init__(self, name, registry, username=None, password=None):
        self.name, self.registry, self.username, self.password = name, registry, username, password

    @classmethod
    def create(cls, name, registry, location="local", username=None, password=None):
        _andiron("group", "create", "--name", name, "--location", location)
        return cls(name, registry, username, password)

    @classmethod
    def get(cls, name, registry, username=None, password=None):
        _andiron("group", "show", "--name", name)
        return cls(name, registry, username, password)


class Model:
    """A registered model."""

    def __init__(self, workspace, name, version=None, document=None):
        if document is None:
            document = _json("model", "show", "--name", name if version is None else f"{name}:{version}")
        self.workspace, self.name, self.version = workspace, document["name"], document["version"]
        self.id, self.tags, self.description = document["id"], document["tags"], document["description"]

    @staticmethod
    def register(workspace, model_path, model_name, tags=None, properties=None, description=None, model_framework=None):
        arguments = ["model", "register", "--name", model_name, "--path", model_path]
        for option, pairs in (("--tag", tags), ("--property", properties)):
            for key, value in (pairs or {}).items():
                arguments += [option, f"{key}={value}"]
        if description is not None:
            arguments += ["--description", description]
        if model_framework is not None:
            arguments += ["--model-framework", model_framework]
        return Model(workspace, model_name, document=_json(*arguments))

    @staticmethod
    def list(workspace, name=None, latest=False):
        arguments = ["model", "list"] + (["--name", name] if name else []) + (["--latest"] if latest else [])
        return [Model(workspace, document["name"], document=document) for document in _json(*arguments)]

    def delete(self):
        _andiron("model", "delete", "--name", self.id)


class CondaDependencies:
    """A conda file."""

    def __init__(self, text=None):
        self._text = text or "name: environment\ndependencies:\n  - python\n"
        self._conda, self._pip = [], []

    @classmethod
    def create(cls, pip_packages=None, conda_packages=None):
        made = cls()
        made._conda, made._pip = [*(conda_packages or [])], [*(pip_packages or [])]
        return made

    def add_pip_package(self, name):
        self._pip.append(name)

    def add_conda_package(self, name):
        self._conda.append(name)

    def serialize_to_string(self):
        lines = [self._text.rstrip("\n"), *(f"  - {name}" for name in self._conda)]
        if self._pip:
            lines += ["  - pip", "  - pip:", *(f"      - {name}" for name in self._pip)]
        return "\n".join(lines) + "\n"


class _PythonSection:
    def __init__(self):
        self.conda_dependencies = CondaDependencies()


class Environment:
    """A name, conda dependencies, and variables."""

    def __init__(self, name):
        self.name, self.python, self.environment_variables = name, _PythonSection(), {}

    @staticmethod
    def from_conda_specification(name, file_path):
        made = Environment(name)
        with open(file_path) as file:
            made.python.conda_dependencies = CondaDependencies(file.read())
        return made

    @staticmethod
    def from_pip_requirements(name, file_path):
        made = Environment(name)
        with open(file_path) as file:
            packages = [line.strip() for line in file if line.strip() and not line.startswith("#")]
        made.python.conda_dependencies = CondaDependencies.create(pip_packages=packages)
        return made


class InferenceConfig:
    """An entry script, its folder, and its environment."""

    def __init__(self, entry_script, environment=None, source_directory=None, description=None):
        self.entry_script, self.environment = entry_script, environment
        self.source_directory, self.description = source_directory, description


class ModelPackage:
    """A package that is being made; ``wait_for_creation`` says how it went."""

    def __init__(self, workspace, arguments):
        self.workspace, self.state, self.location, self.error, self._logs = workspace, "Running", None, None, ""
        try:
            done = _andiron(*arguments)
        except WebserviceException as failure:
            self.state, self.error, self._logs = "Failed", str(failure), str(failure)
        else:
            self.state, self.location, self._logs = "Succeeded", done.stdout.strip(), done.stderr

    def wait_for_creation(self, show_output=False):
        if show_output:
            print(self._logs, end="", file=sys.stdout)
        if self.state != "Succeeded":
            raise WebserviceException(
                f"Package creation reached non-successful terminal state.\nState: {self.state}\nError:\n{self.error}")

    def get_logs(self):
        return self._logs

    def __repr__(self):
        return f"ModelPackage(workspace={self.workspace.name}, generate_dockerfile=False, state={self.state}, location={self.location})"


def package(workspace, models, inference_config, generate_dockerfile=False, functions_enabled=False, trigger=None, **options):
    """Packages models with a trigger; options are those of the trigger, for example ``auth_level``."""
    arguments = ["package", "--show-output", "--registry", workspace.registry]
    for model in models:
        arguments += ["--model", model.id if isinstance(model, Model) else model]
    arguments += ["--entry-script", inference_config.entry_script]
    if inference_config.source_directory:
        arguments += ["--source-directory", inference_config.source_directory]
    if workspace.username:
        arguments += ["--username", workspace.username, "--password", workspace.password]
    if functions_enabled and trigger is not None:
        arguments += ["--trigger", trigger]
        for name, value in options.items():
            arguments += ["--" + name.replace("_", "-"), value]
    environment = inference_config.environment
    with tempfile.TemporaryDirectory() as folder:
        if environment is not None:
            path = os.path.join(folder, "conda.yml")
            with open(path, "w") as file:
                file.write(environment.python.conda_dependencies.serialize_to_string())
            arguments += ["--conda-file", path]
            for name, value in environment.environment_variables.items():
                arguments += ["--environment-variable", f"{name}={value}"]
        return ModelPackage(workspace, arguments)


def package_http(workspace, models, inference_config, generate_dockerfile=False, auth_level=None):
    options = {} if auth_level is None else {"auth_level": auth_level}
    return package(workspace, models, inference_config, generate_dockerfile, True, HTTP_TRIGGER, **options)


def package_blob(workspace, models, inference_config, generate_dockerfile=False, input_path=None, output_path=None):
    options = {k: v for k, v in {"input_path": input_path, "output_path": output_path}.items() if v is not None}
    return package(workspace, models, inference_config, generate_dockerfile, True, BLOB_TRIGGER, **options)


def package_service_bus_queue(workspace, models, inference_config, generate_dockerfile=False, input_queue_name=None, output_queue_name=None):
    options = {"input_queue_name": input_queue_name, "output_queue_name": output_queue_name}
    options = {k: v for k, v in options.items() if v is not None}
    return package(workspace, models, inference_config, generate_dockerfile, True, SERVICE_BUS_QUEUE_TRIGGER, **options)
