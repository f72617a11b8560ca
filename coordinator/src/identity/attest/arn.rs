//! The name of the caller, in the two forms that an instance can have.
//!
//! `arn:aws:sts::123456789012:assumed-role/<role>/<i-…>` is a session of an instance profile's role, which
//! EC2 names after the instance. The instance identity role's is
//! `arn:aws:iam::123456789012:assumed-role/aws:ec2-instance/<i-…>`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-identity-roles.html>), with a colon
//! that no IAM role can have in its name. Whether STS writes `sts` or `iam` there isn't documented, so
//! both count.

use muster_core::InstanceId;

use super::answer::CallerIdentity;

/// The role that an instance signs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The instance identity role, which nobody but EC2 gives out.
    InstanceIdentity,
    /// The role of the instance profile, by its name.
    InstanceProfile(String),
}

/// What the name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) role: Role,
    pub(super) instance: InstanceId,
}

const IDENTITY_ROLE: &str = "aws:ec2-instance";

/// Reads who it was, or says what is wrong, for the log.
pub(super) fn read(identity: &CallerIdentity, region: &str) -> Result<Caller, String> {
    let arn = &identity.arn;
    let refuse = |what: &str| Err(format!("the caller is {:?}: {what}", shortened(arn)));
    // Six parts: the last one may hold colons itself.
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, service, "", account, resource] = parts.as_slice() else {
        return refuse("no ARN of an account");
    };
    if *partition != partition_of(region) {
        return refuse("of another partition than the region's");
    }
    if !is_account_id(account) || *account != identity.account {
        return refuse("the account in it is not the one beside it");
    }
    let session: Vec<&str> = resource.split('/').collect();
    let ["assumed-role", role, instance] = session.as_slice() else {
        return refuse("no session of a role");
    };
    if !is_instance_id(instance) {
        return refuse("its session is not named after an instance");
    }
    let role = match (*service, *role) {
        ("sts" | "iam", IDENTITY_ROLE) => Role::InstanceIdentity,
        ("sts", role) if is_role_name(role) => {
            // AROA…:<session>, as for every assumed role.
            let session = identity.user_id.split_once(':').map(|(_, session)| session);
            if session != Some(instance) {
                return refuse("the session in the user id is another");
            }
            Role::InstanceProfile(role.to_owned())
        }
        _ => return refuse("no role of an instance"),
    };
    Ok(Caller {
        role,
        instance: InstanceId::new(*instance),
    })
}

/// botocore, `endpoints.json`: the partitions and their regions.
fn partition_of(region: &str) -> &'static str {
    const PARTITIONS: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("eusc-", "aws-eusc"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("eu-isoe-", "aws-iso-e"),
    ];
    PARTITIONS
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("aws", |(_, partition)| partition)
}

/// EC2's own forms: 17 digits, or the 8 of old.
fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Twelve digits.
pub(super) fn is_account_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>, `RoleName`.
pub(super) fn is_role_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

fn shortened(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{CallerIdentity, Role, read};

    const ACCOUNT: &str = "123456789012";

    fn of(arn: &str) -> Result<(Role, String), String> {
        let identity = CallerIdentity {
            account: ACCOUNT.to_owned(),
            arn: arn.to_owned(),
            user_id: "AROAEXAMPLE:i-0123456789abcdef0".to_owned(),
        };
        read(&identity, "eu-west-1").map(|it| (it.role, it.instance.to_string()))
    }

    #[rstest]
    #[case("arn:aws:iam::123456789012:assumed-role/aws:ec2-instance/i-0123456789abcdef0")]
    #[case("arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-0123456789abcdef0")]
    fn the_instance_identity_role_has_a_colon_in_its_name(#[case] arn: &str) {
        let expected = (Role::InstanceIdentity, "i-0123456789abcdef0".to_owned());
        assert_eq!(of(arn), Ok(expected));
    }

    #[test]
    fn a_session_of_another_role_is_an_instance_profiles() {
        let arn = "arn:aws:sts::123456789012:assumed-role/runner/i-0123456789abcdef0";
        let role = Role::InstanceProfile("runner".to_owned());
        assert_eq!(of(arn), Ok((role, "i-0123456789abcdef0".to_owned())));
    }

    #[rstest]
    #[case::user("arn:aws:iam::123456789012:user/i-0123456789abcdef0")]
    #[case::root("arn:aws:iam::123456789012:root")]
    #[case::role("arn:aws:iam::123456789012:role/aws:ec2-instance/i-0123456789abcdef0")]
    #[case::iam_session("arn:aws:iam::123456789012:assumed-role/runner/i-0123456789abcdef0")]
    #[case::partition("arn:aws-cn:sts::123456789012:assumed-role/runner/i-0123456789abcdef0")]
    #[case::account("arn:aws:sts::210987654321:assumed-role/runner/i-0123456789abcdef0")]
    #[case::region("arn:aws:sts:eu-west-1:123456789012:assumed-role/runner/i-0123456789abcdef0")]
    #[case::person("arn:aws:sts::123456789012:assumed-role/runner/eve@example.com")]
    #[case::nine("arn:aws:sts::123456789012:assumed-role/runner/i-012345678")]
    #[case::upper("arn:aws:sts::123456789012:assumed-role/runner/i-0123456789ABCDEF0")]
    #[case::user_id("arn:aws:sts::123456789012:assumed-role/runner/i-0000000000000000f")]
    #[case::deeper("arn:aws:sts::123456789012:assumed-role/a/runner/i-0123456789abcdef0")]
    #[case::colon("arn:aws:sts::123456789012:assumed-role/aws:ec2/i-0123456789abcdef0")]
    #[case::trailing("arn:aws:sts::123456789012:assumed-role/runner/i-0123456789abcdef0/")]
    #[case::newline("arn:aws:sts::123456789012:assumed-role/runner/i-0123456789abcdef0\n")]
    #[case::empty("")]
    fn any_other_caller_is_no_instance(#[case] arn: &str) {
        assert!(of(arn).is_err(), "{arn}");
    }
}
