//! How long is waited for the app, and how many questions there are.

use super::*;

#[tokio::test]
async fn an_app_that_does_not_answer_is_waited_for_a_while() {
    let server = Server::start(|_, stream| until_gone(stream, Duration::from_secs(60)));
    let asker = asker(&server);
    let began = Instant::now();
    let credentials: Vec<Credential> = (0..200).map(|number| cookie(&format!("s={number}"))).collect();
    let asked = join_all(credentials.iter().map(|credential| ask(&asker, credential, &[])));
    // As many at once as it can take, and the others wait.
    let watched = async {
        while server.seen().len() < IN_FLIGHT {
            assert!(began.elapsed() < PATIENCE, "{} questions came", server.seen().len());
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(PATIENCE / 4).await;
        (server.seen().len(), began.elapsed())
    };
    let (answers, (seen, at)) = tokio::join!(asked, watched);
    assert!(
        seen == IN_FLIGHT || at >= PATIENCE - GRACE,
        "{seen} questions after {at:?}"
    );
    for answer in answers {
        assert_eq!(answer.unwrap_err(), LATE);
    }
    let took = began.elapsed();
    assert!(
        took >= PATIENCE - GRACE && took < PATIENCE + Duration::from_secs(2),
        "{took:?}"
    );
    // One line for all of them; who waited may have given up a little before its question did.
    let lines = async {
        while asker.shared().untold < 199 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), lines)
        .await
        .expect("199 lines are saved");
}

/// On a clock that stands still while anything can be done.
#[tokio::test(start_paused = true)]
async fn a_client_hears_within_two_seconds_that_its_question_has_ended() {
    let server = Server::start(|_, stream| until_gone(stream, Duration::from_secs(60)));
    let asker = asker(&server);
    let began = Instant::now();
    assert_eq!(ask(&asker, &cookie("s=1"), &[]).await.unwrap_err(), LATE);
    assert!(began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
    assert!(asker.shared().open.is_empty(), "who asks again asks anew");
}

#[tokio::test(start_paused = true)]
async fn no_question_begins_when_it_is_too_late_for_it() {
    let server = answering("200 OK", &claims(60));
    let asker = asker(&server);
    let members = claims(60).as_object().unwrap().clone();
    let known = Claims::new(members, SystemTime::now()).unwrap();
    let question = asker.question(&cookie("known=1"), &[]);
    asker.shared().cache.put(question, Arc::new(known));
    let over = Deadline::from_now();
    tokio::time::advance(PATIENCE).await;
    let ask = |text| {
        let (asker, credential) = (asker.clone(), cookie(text));
        async move { asker.ask(&credential, &[], None, over).await }.now_or_never()
    };
    assert_eq!(ask("s=1").unwrap().unwrap_err(), LATE);
    assert!(asker.shared().open.is_empty());
    assert!(ask("known=1").unwrap().is_ok(), "what is known is never late");
}

#[tokio::test]
async fn a_flood_of_credentials_ends_in_refusals() {
    let server = Server::start(|_, stream| until_gone(stream, Duration::from_secs(60)));
    let asker = asker(&server);
    let credentials: Vec<Credential> = (0..MAX_OPEN + 100)
        .map(|number| cookie(&format!("s={number}")))
        .collect();
    let waiting: Vec<_> = credentials[..MAX_OPEN]
        .iter()
        .map(|credential| {
            Handle::current().spawn({
                let (asker, credential) = (asker.clone(), credential.clone());
                async move { ask(&asker, &credential, &[]).await }
            })
        })
        .collect();
    let began = Instant::now();
    while asker.shared().open.len() < MAX_OPEN {
        assert!(
            began.elapsed() < PATIENCE,
            "{} questions are open",
            asker.shared().open.len()
        );
        tokio::task::yield_now().await;
    }
    // At once, and while those before still wait.
    for credential in &credentials[MAX_OPEN..] {
        let answer = ask(&asker, credential, &[]).now_or_never();
        assert_eq!(answer.unwrap().unwrap_err(), LATE);
    }
    assert_eq!(asker.shared().open.len(), MAX_OPEN);
    assert_eq!(asker.counts.refused_questions.load(Ordering::Relaxed), 100);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap_err(), LATE);
    }
    all_end(&asker).await;
}

/// Whoever has one address comes with as many credentials as it likes, and takes no place from others by that.
#[tokio::test]
async fn an_address_has_a_share_of_the_questions() {
    let gate = Gate::default();
    let opened = gate.clone();
    let body = claims(60).to_string();
    let server = Server::start(move |request, stream| {
        if request.header("cookie").unwrap().starts_with("flood") {
            opened.pass();
        }
        say(stream, "200 OK", "", &body);
    });
    let asker = asker(&server);
    let address = |text: &str| Some(Network::of(text.parse().unwrap()));
    let flooding = address("203.0.113.1");
    let ask = |text: &str, address| {
        let (asker, credential) = (asker.clone(), cookie(text));
        async move { asker.ask(&credential, &[], address, Deadline::from_now()).await }
    };
    for number in 0..MAX_PER_ADDRESS {
        let said = ask(&format!("flood={number}"), flooding).now_or_never();
        assert!(said.is_none(), "{number}: {said:?}");
    }
    let late = ask("late=1", flooding).now_or_never();
    assert_eq!(late.unwrap().unwrap_err(), CROWDED);
    assert_eq!(asker.counts.refused_questions.load(Ordering::Relaxed), 1);
    // What is being asked already takes no further place.
    assert!(ask("flood=0", flooding).now_or_never().is_none());
    // Others are answered while those wait.
    for (number, other) in [address("203.0.113.2"), address("2001:db8::1"), None]
        .into_iter()
        .enumerate()
    {
        let said = ask(&format!("other={number}"), other).await;
        assert!(said.is_ok(), "{other:?}: {said:?}");
    }
    gate.open();
    all_end(&asker).await;
    assert_eq!(asker.shared().shares.len(), 0);
    // Nothing is held against who was turned away.
    let again = ask("late=1", flooding).await;
    assert!(again.is_ok(), "{again:?}");
}

/// On a clock that stands still while anything can be done: the question has still half of its time when its client gives up.
#[tokio::test(start_paused = true)]
async fn what_comes_too_late_is_there_for_the_next_try() {
    let gate = Gate::default();
    let opened = gate.clone();
    let body = claims(60).to_string();
    let server = Server::start(move |_, stream| {
        opened.pass();
        say(stream, "200 OK", "", &body);
    });
    let asker = asker(&server);
    let deadline = Deadline::from_now();
    tokio::time::advance(PATIENCE / 2).await;
    let late = asker.ask(&cookie("s=1"), &[], None, deadline).await;
    assert_eq!(late.unwrap_err(), LATE);
    gate.open();
    let since = std::time::Instant::now();
    while !asker.shared().open.is_empty() {
        assert!(since.elapsed() < Duration::from_secs(30), "it is answered");
        tokio::task::yield_now().await;
    }
    let again = ask(&asker, &cookie("s=1"), &[]).now_or_never();
    assert!(again.unwrap().is_ok());
    assert_eq!(server.seen().len(), 1);
}
