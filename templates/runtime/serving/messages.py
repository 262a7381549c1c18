"""The messages of the Open Inference Protocol v2 over gRPC, and of gRPC's health protocol, as protobuf has them.

Names, numbers and types of the fields are those of the published protocol: any client of it can read what is sent. The
classes are made from the tables below, so that no generated code ties them to one version of protobuf.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

# Message -> its fields, each `number name type`. `T*` is repeated, `map M` goes from strings to messages M, and fields
# after `|` exclude one another.
_NAMED = "1 name string, 2 version string"
_TENSOR = "1 name string, 2 datatype string, 3 shape int64*, 4 parameters map InferParameter, 5 contents {}"
_MODEL = "1 repository_name string, 2 model_name string, 3 parameters map ModelRepositoryParameter"
INFERENCE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": f"{_NAMED}, 3 extensions string*",
    "ModelMetadataRequest": _NAMED,
    "TensorMetadata": "1 name string, 2 datatype string, 3 shape int64*",
    "ModelMetadataResponse": "1 name string, 2 versions string*, 3 platform string, 4 inputs TensorMetadata*, "
    "5 outputs TensorMetadata*",
    "InferParameter": "| 1 bool_param bool, 2 int64_param int64, 3 string_param string, 4 double_param double, "
    "5 uint64_param uint64",
    "InferTensorContents": "1 bool_contents bool*, 2 int_contents int32*, 3 int64_contents int64*, "
    "4 uint_contents uint32*, 5 uint64_contents uint64*, 6 fp32_contents float*, 7 fp64_contents double*, "
    "8 bytes_contents bytes*",
    "InferInputTensor": _TENSOR.format("InferTensorContents"),
    "InferRequestedOutputTensor": "1 name string, 2 parameters map InferParameter",
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string, 4 parameters map InferParameter, "
    "5 inputs InferInputTensor*, 6 outputs InferRequestedOutputTensor*, 7 raw_input_contents bytes*",
    "InferOutputTensor": _TENSOR.format("InferTensorContents"),
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string, 4 parameters map InferParameter, "
    "5 outputs InferOutputTensor*, 6 raw_output_contents bytes*",
    "ModelRepositoryParameter": "| 1 bool_param bool, 2 int64_param int64, 3 string_param string, 4 bytes_param bytes",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "ModelIndex": "1 name string, 2 version string, 3 state string, 4 reason string",
    "RepositoryIndexResponse": "1 models ModelIndex*",
    "RepositoryModelLoadRequest": _MODEL,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": _MODEL,
    "RepositoryModelUnloadResponse": "",
}
# `status` is an enumeration, which travels as an int32: 1 is SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN.
HEALTH = {"HealthCheckRequest": "1 service string", "HealthCheckResponse": "1 status int32"}


def make(package: str, table: dict[str, str]) -> dict[str, Any]:
    """The classes of a table, by name."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in table.items():
        _describe(file.message_type.add(name=name), package, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in table}


def _describe(message: Any, package: str, fields: str) -> None:
    plain, _, exclusive = fields.partition("|")
    if exclusive:
        message.oneof_decl.add(name="parameter_choice")
    for text in filter(None, (field.strip() for field in f"{plain},{exclusive}".split(","))):
        number, name, *kind = text.split()
        field = message.field.add(name=name, number=int(number), label=1)
        if exclusive:
            field.oneof_index = 0
        if kind[0] == "map":
            entry = message.nested_type.add(name=f"{name.title()}Entry")
            entry.options.map_entry = True
            _describe(entry, package, f"1 key string, 2 value {kind[1]}")
            field.label, field.type, field.type_name = 3, 11, f".{package}.{message.name}.{entry.name}"
            continue
        if kind[0].endswith("*"):
            field.label = 3
        word = kind[0].removesuffix("*")
        known = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{word.upper()}", None)
        if known is None:
            field.type, field.type_name = 11, f".{package}.{word}"
        else:
            field.type = known
