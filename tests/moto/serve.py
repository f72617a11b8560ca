"""moto's server with what a test of the coordinator needs beside it. Driven by JSON lines on standard
input, answers on standard output, ends when its input does.

What is added to moto, and why:
- CreateFleet and RunInstances heed their ClientToken (moto makes the instances again);
- each call is decided by the policies' resources and conditions too (moto looks at actions only), and
  each decision is kept for the test to read;
- errors of these checks have the form of their protocol (moto has one form for all);
- STS answers in JSON if it is asked to (moto heeds no Accept header);
- events on a queue name their account (moto leaves it out).
Signatures are checked by moto itself.
"""

import functools
import hashlib
import io
import json
import logging
import sys
import threading

import boto3
from botocore.config import Config
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import JsonRESTError, _RESTError
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.responses.fleets import Fleets
from moto.ec2.responses.instances import InstanceResponse
from moto.events.models import Rule
from moto.iam.access_control import AssumedRoleAccessKey, IAMRequest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.sts.responses import TokenResponse
from moto.utilities.utils import get_partition
from xmltodict import unparse

import bootstrap
import needs
import policy

# The key of whoever sets the stage: may do all, and is not among the decisions.
STAGE = "STAGE"

lock = threading.RLock()
decisions = []


class Refused(_RESTError):
    """An error in the form of its protocol."""

    def __init__(self, service, as_json, status, code, message):
        super().__init__(code, message)
        self.code = status
        error = {"Code": code, "Message": message}
        if as_json:
            self.description = json.dumps({"Error": {"Type": "Sender"} | error, "RequestId": "r"})
        elif service == "ec2":
            self.description = unparse({"Response": {"Errors": {"Error": error}, "RequestID": "r"}})
        else:
            self.description = unparse({"ErrorResponse": {"Error": {"Type": "Sender"} | error}})


JSON = {
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "AccessDenied": "AccessDeniedException",
}


def wants_json(response):
    return response.headers.get("Accept") == "application/json"


def refuse(response, service, status, code, message):
    if service in ("ssm", "sqs", "events"):
        error = JsonRESTError(JSON.get(code, code), message)
        error.code = status if service != "ssm" else 400
        raise error
    if service == "ec2" and code == "AccessDenied":
        code, message = "UnauthorizedOperation", f"You are not authorized to perform this operation. {message}"
    raise Refused(service, wants_json(response), status, code, message)


def parsed(response):
    """Parameters by the names of botocore's models."""
    kept = response.__dict__.get("params")
    response.parse_parameters(response.normalized_request)
    params = response.params
    if kept is None:
        del response.params
    else:
        response.params = kept
    return params


def keeping_bodies(application):
    """Keeps the body of each request as it came: moto checks signatures over a form that it has parsed
    and written anew, where a space is another one."""

    @functools.wraps(application)
    def wrapped(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["muster.body"], environ["wsgi.input"] = body, io.BytesIO(body)
        return application(self, environ, start_response)

    return wrapped


def authorize(response, resource="*"):
    """In place of moto's own check."""
    if f"Credential={STAGE}/" in response.headers["Authorization"]:
        return
    service = response.headers["Authorization"].split("Credential=")[1].split("/")[3]
    action = response._get_action()
    try:
        request = IAMRequest(
            account_id=response.current_account,
            method=response.method,
            path=response.raw_path,
            data=response.data,
            body=response.normalized_request.environ["muster.body"],
            headers=response.headers,
            action=action,
        )
        request.check_signature()
    except _RESTError as error:
        refuse(response, service, error.code, error.error_type, error.message)
    if f"{service}:{action}" == "sts:GetCallerIdentity":
        return
    key = request._access_key
    if isinstance(key, AssumedRoleAccessKey):
        principal = ("role", key._owner_role_name)
    else:
        principal = ("user", key._owner_user_name)
    partition = get_partition(request._region)
    call = needs.Call(response.current_account, request._region, service, action, parsed(response))
    with lock:
        own, who = needs.documents(call.account, partition, principal)
        # Lazily: what is refused first is not looked into further.
        for one, what, context in needs.needs(call, resource):
            allowed, denied = policy.deciding(own, one, what, context)
            good = bool(allowed) and not denied
            if good and service == "sts":
                good = trusted(what, one, context, who)
            decisions.append({
                "who": who, "call": f"{service}:{action}", "action": one, "resource": what,
                "allowed": good, "by": allowed,
            })
            if not good:
                refuse(response, service, 403, "AccessDenied",
                       f"User: {key.arn} is not authorized to perform: {one} on resource: {what}")


def trusted(role_arn, action, context, who):
    """Whether a role admits this one."""
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[1]
    iam = needs.iam_backends[account][role_arn.split(":")[1]]
    if name not in {role.name for role in iam.get_roles()}:
        return False
    document = iam.get_role(name).assume_role_policy_document
    allowed, denied = policy.deciding([json.loads(document)], action, role_arn, context, ("AWS", who))
    return bool(allowed) and not denied


def idempotent(method):
    """The same token gives the same answer once more; with another request it is an error."""
    answers = {}

    @functools.wraps(method)
    def wrapped(response):
        params = dict(parsed(response))
        token = params.pop("ClientToken", None)
        if token is None:
            return method(response)
        key = (response.current_account, response.region, token)
        digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).digest()
        with lock:
            if key not in answers:
                answers[key] = (digest, method(response))
            first, answer = answers[key]
        if first != digest:
            raise TokenReused()
        return answer

    return wrapped


class TokenReused(EC2ClientError):
    code = "IdempotentParameterMismatch"
    message = "The client token was used for another request."


def with_account(send):
    @functools.wraps(send)
    def wrapped(rule, queue, event, group):
        return send(rule, queue, event | {"account": rule.account_id}, group)

    return wrapped


def client(service, account, region):
    """A client of whoever sets the stage, in an account."""
    made = boto3.client(
        service,
        region_name=region,
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=STAGE,
        aws_secret_access_key=STAGE,
        config=Config(retries={"total_max_attempts": 1}),
    )

    def into_account(request, **_):
        request.headers["x-moto-account-id"] = account

    made.meta.events.register("before-sign.*", into_account)
    return made


def instances(account, region):
    """What exists, read without a call."""
    with lock:
        return [
            {
                "id": one.id,
                "state": one._state.name,
                "type": one.instance_type,
                "subnet": one.subnet_id,
                "image": one.image_id,
                "tags": {tag["key"]: tag["value"] for tag in one.get_tags()},
            }
            for one in ec2_backends[account][region].all_instances()
        ]


def answer(order):
    """One order of the test."""
    match order["order"]:
        case "bootstrap":
            return bootstrap.bootstrap(client, order["plan"])
        case "instances":
            return instances(order["account"], order["region"])
        case "decisions":
            with lock:
                return list(decisions)
        case "call":
            made = client(order["service"], order["account"], order["region"])
            result = getattr(made, order["call"])(**order["arguments"])
            result.pop("ResponseMetadata", None)
            return result
        case other:
            raise ValueError(f"unknown order {other}")


if __name__ == "__main__":
    ActionAuthenticatorMixin._authenticate_and_authorize_normal_action = authorize
    DomainDispatcherApplication.__call__ = keeping_bodies(DomainDispatcherApplication.__call__)
    Fleets.create_fleet = idempotent(Fleets.create_fleet)
    InstanceResponse.run_instances = idempotent(InstanceResponse.run_instances)
    Rule._send_to_sqs_queue = with_account(Rule._send_to_sqs_queue)
    TokenResponse.request_json = property(wants_json)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(json.dumps({"port": port}), flush=True)
    for line in sys.stdin:
        try:
            print(json.dumps({"ok": answer(json.loads(line))}, default=str), flush=True)
        except Exception as error:  # told to the test, which ends with it
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
